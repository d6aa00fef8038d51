"""What an avatar's video is measured by; one concept a file. `training.evaluate` puts it together."""
