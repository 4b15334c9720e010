"""What the watch looks at in requests to language models: texts and the parameters they come with."""
