import seval  # before tqdm and what imports it: it looks at the environment

__all__ = ["seval"]
