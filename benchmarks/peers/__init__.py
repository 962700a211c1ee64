"""The same turn of the same conversation, as others would have one build it."""
