"""``python -m skfisher`` prints what `show_versions` does."""

from skfisher.environment import show_versions

if __name__ == "__main__":
    show_versions()
