"""Estimators that turn bags into vectors."""
