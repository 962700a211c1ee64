"""The kinds that the fleet itself is made of: one a file. Each file says how its kinds are at home:
`residents(doors)` gives them with their performers."""
