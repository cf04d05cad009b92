"""What the project makes, published: models and sessions as repositories of the Hugging Face Hub."""
