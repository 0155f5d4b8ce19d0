"""Hostile input, made at random: what ``python3 dev.py fuzz`` runs. See fuzz/README.md."""
