"""What trials are made of: signals, gradients, trainings, exact answers, bounds and intervals."""
