"""What the state is now, and for how long: following a backend, holds, writes, which backend is meant."""
