"""Where the basis B_t of a subspace comes from. One source, one file."""
