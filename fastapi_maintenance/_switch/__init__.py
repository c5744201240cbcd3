"""What the state is now: the follower, the workers and their drains, holds, and the current backend."""
