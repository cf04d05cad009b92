"""Publishing on the Hugging Face Hub: models, sessions and Spaces, each in one commit, and their cards."""
