"""A reward model behind HTTP, see `geli serve`. Nothing imports this room; it needs the extra `serve`."""
