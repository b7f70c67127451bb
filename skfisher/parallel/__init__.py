"""Work cut into units and sent to threads or GPUs."""
