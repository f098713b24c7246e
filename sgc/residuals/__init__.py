"""What becomes of the gradient where an update says nothing. One rule, one file."""
