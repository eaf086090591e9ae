"""`ssh://host`: `engine` speaks through the user's OpenSSH to a `desk` there, which starts workers that outlive it."""
