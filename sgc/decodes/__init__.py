"""How two compressed moments become one sparse update. One decode, one file."""
