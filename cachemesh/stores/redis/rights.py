"""What a user of the server must be allowed to do, and no more: a line for `ACL SETUSER`."""

from __future__ import annotations

from typing import Final

RIGHTS: Final = (
    "~cm1:* &cm1:* -@all"
    " +get +mget +eval +evalsha +scan +info +ping +subscribe"
    # Within our scripts.
    " +set +del +unlink +exists +getrange +hmget +hset +hget +hdel +zadd +zcard +zrangebyscore +zpopmin +publish"
)
"""For one server: `ACL SETUSER app on >secret`, and this.

One namespace alone, "shop" for example: in the place of `~cm1:* &cm1:*` write
`~cm1:4:shop:* ~cm1:{4:shop}:* &cm1:{4:shop}:news`; 4 is the length of the name
in bytes.
"""
