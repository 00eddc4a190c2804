"""Tables of classes: those of the paper."""
