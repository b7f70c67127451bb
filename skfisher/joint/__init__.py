"""Joint training of feature map, mixture and support vector machine."""
