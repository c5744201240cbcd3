"""Types for asyncpg, which has none: what a connection does to listen.

Left out: everything else.
"""

from asyncpg.connection import Connection as Connection
