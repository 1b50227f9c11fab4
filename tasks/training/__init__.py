"""What tasks are made of: the base task, optimizers and schedules, fine-tuning, pictures of results."""
