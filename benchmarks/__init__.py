"""One program for each claim about speed; each ends with one line of JSON."""
