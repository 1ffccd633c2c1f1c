"""Repositories of the Hugging Face Hub: their commits, and files of these in the Hub's own cache."""
