"""Speed, measured against rivals and floors in one run: one module per machine."""
