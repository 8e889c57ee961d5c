"""From a row's text to token ids."""
