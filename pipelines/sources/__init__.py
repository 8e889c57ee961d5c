"""Where text comes from: files are found, checked, cut into pieces, and their rows read."""
