"""Steps from bags to encodings, forward and backward."""
