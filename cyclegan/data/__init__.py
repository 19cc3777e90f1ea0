import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or each process asks PyPI for a newer one when it starts
