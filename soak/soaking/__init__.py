"""What ``python3 dev.py soak`` and ``kills`` are made of; see README.md beside this folder."""
