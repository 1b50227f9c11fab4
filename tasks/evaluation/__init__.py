"""What a language model is worth: tasks of one's own files, and those of lm-evaluation-harness."""
