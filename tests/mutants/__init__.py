"""Changes the code one small thing at a time, and counts how many of these mutants the tests notice: `make mutants`."""
