"""What every estimator keeps: checks of input, labels, names, tensors in and out."""
