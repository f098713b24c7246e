"""What trials are made of: signals, gradients, trainings, points, exact answers and bounds."""
