"""Virtual machines: intent (`vm`) and incarnation (`vm_incarnation`)."""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from pileus.server.db.tables.column import Key, Name, Short, flag, instant, key, live, metadata, uuid_column

instance_group = Table(
    "instance_group",
    metadata,
    key(),
    uuid_column(),
    Column("name", Name, nullable=False),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    live(),
    instant("created_at"),
    instant("removed_at", nullable=True),
    UniqueConstraint("account_id", "name", "live"),
    Index("ix_instance_group_live_account", "live", "account_id", "id"),
)
"""A name under which an account gathers guests; a guest is in one at most."""

vm = Table(
    "vm",
    metadata,
    key(),
    uuid_column(),
    Column("kind", Short, nullable=False, default="User"),
    Column("instance_name", Name, nullable=True),
    Column("name", Name, nullable=False),
    Column("display_name", Name, nullable=True),
    Column("name_key", String(300), nullable=True, unique=True),
    Column("account_id", Key, ForeignKey("account.id"), nullable=False),
    Column("domain_id", Key, ForeignKey("domain.id"), nullable=False),
    Column("zone_id", Key, ForeignKey("zone.id"), nullable=False),
    Column("state", Short, nullable=False),
    Column("service_offering_id", Key, ForeignKey("service_offering.id"), nullable=False),
    Column("template_id", Key, ForeignKey("template.id"), nullable=True),
    Column("os_type_id", Key, nullable=True),
    Column("hypervisor", Short, nullable=False),
    Column("host_id", Key, ForeignKey("host.id"), nullable=True),
    Column("last_host_id", Key, nullable=True),
    Column("pod_id", Key, nullable=True),
    Column("group_id", Key, ForeignKey("instance_group.id"), nullable=True),
    Column("key_pair", Name, nullable=True),
    Column("vnc_password", Short, nullable=False),
    Column("epoch", BigInteger, nullable=False, default=0),
    flag("ha"),
    flag("password_enabled"),
    Column("details", Text, nullable=True),
    live(),
    instant("created_at"),
    instant("destroyed_at", nullable=True),
    instant("removed_at", nullable=True),
    Column("roll", BigInteger, nullable=True),
    Index("ix_vm_live", "live", "kind", "id"),
    Index("ix_vm_live_domain", "live", "kind", "domain_id", "id"),
    Index("ix_vm_live_state", "live", "kind", "state", "id"),
    Index("ix_vm_roll", "roll"),
    Index("ix_vm_live_account", "live", "kind", "account_id", "id"),
    Index("ix_vm_live_zone", "live", "kind", "zone_id", "id"),
    Index("ix_vm_live_host", "live", "host_id", "id"),
    Index("ix_vm_state", "live", "state", "destroyed_at"),
    Index("ix_vm_group", "group_id"),
)
"""What the user asked for. `name_key` ("network domain/host name") is set while the host name is taken.
`epoch` counts lives; `host_id` repeats the live incarnation's host for lists. `key_pair` names the SSH key pair it was
deployed with; the public key itself is in `guest_data`. `roll` is the generation of the roll (`db.queries.roll`) in
which it last began or ceased to be in some list."""

vm_incarnation = Table(
    "vm_incarnation",
    metadata,
    key(),
    Column("vm_id", Key, ForeignKey("vm.id"), nullable=False),
    Column("host_id", Key, ForeignKey("host.id"), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("state", Short, nullable=False),
    Column("current", SmallInteger, nullable=True, default=1),
    Column("cpu_mhz", BigInteger, nullable=False),
    Column("ram_mib", BigInteger, nullable=False),
    Column("vnc_host", Short, nullable=True),
    Column("vnc_port", Integer, nullable=True),
    Column("job_id", Key, nullable=True),
    instant("created_at"),
    instant("ended_at", nullable=True),
    UniqueConstraint("vm_id", "current"),
    UniqueConstraint("vm_id", "epoch"),
    Index("ix_vm_incarnation_host", "current", "host_id"),
)
"""One life on one host. `current` is 1 until it is over, then NULL: two lives at once cannot be stored. While it is
current it holds `cpu_mhz` and `ram_mib` of its host's capacity. `job_id` is the job that planned it: only that job's
undo may end it."""

vm_stats = Table(
    "vm_stats",
    metadata,
    Column("vm_id", Key, ForeignKey("vm.id"), primary_key=True),
    Column("cpu_used", Float, nullable=False, default=0),
    Column("cpu_seconds", Float, nullable=False, default=0),
    Column("received_bytes", BigInteger, nullable=False, default=0),
    Column("sent_bytes", BigInteger, nullable=False, default=0),
    instant("taken_at"),
)
