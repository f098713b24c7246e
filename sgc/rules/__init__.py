"""ρ of ``W ← W − η·g(ρ(f(G)))``: what is kept of the past. One rule, one file."""
