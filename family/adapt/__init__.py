"""Changes to a model that is built: LoRA adapters, another size or number of classes, parts of another."""
