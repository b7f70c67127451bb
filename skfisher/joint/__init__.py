"""Joint training of feature map, encoder and linear model."""
