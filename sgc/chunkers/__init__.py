"""Ways to cut a flat gradient into c chunks of equal length. One chunker, one file."""
