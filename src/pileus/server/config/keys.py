"""The settings this cloud obeys. A new one is one line here; code reads it with `config.value(tx, keys.its_name)`.

Settings of the API that no code obeys yet are in `accepted.py`.
"""

from pileus.server.config.key import (
    ACCOUNT_DEFAULTS,
    ADVANCED,
    ALERT,
    HIDDEN,
    NETWORK,
    STORAGE,
    USAGE,
    address_range,
    boolean,
    cidrs,
    integer,
    number,
    text,
)
from pileus.server.domain.dns_name import dns_domain

account_cleanup_interval = integer(
    "account.cleanup.interval", 86400, ADVANCED, "seconds between two clean-ups of removed accounts", least=1
)
alert_email_addresses = text(
    "alert.email.addresses", "", ALERT, "who receives alerts by e-mail, separated by commas; empty for nobody"
)
alert_email_sender = text("alert.email.sender", "", ALERT, "sender of alerts; the first recipient unless given")
alert_smtp_host = text("alert.smtp.host", "", ALERT, "mail server for alerts, empty for none")
alert_smtp_password = text("alert.smtp.password", "", ALERT, "password at the mail server", secret=True)
alert_smtp_port = integer("alert.smtp.port", 465, ALERT, "port of the mail server", least=1, most=65535)
alert_smtp_security = text(
    "alert.smtp.security",
    "auto",
    ALERT,
    "how mail is kept secret: tls from the first byte, starttls, none, or auto, which is tls at port 465 and starttls"
    " where the server offers it elsewhere; a password is sent in the clear with none only",
    choices=("auto", "tls", "starttls", "none"),
)
alert_smtp_timeout = integer(
    "alert.smtp.timeout", 30, ALERT, "seconds the mail server may take for each answer", least=1, most=300
)
alert_smtp_truststore = text(
    "alert.smtp.truststore", "", ALERT, "PEM file of authorities the mail server is known by, empty for the system's"
)
alert_smtp_useAuth = boolean("alert.smtp.useAuth", False, ALERT, "whether the mail server wants a password")
alert_smtp_username = text("alert.smtp.username", "", ALERT, "user name at the mail server")
alert_wait = integer(
    "alert.wait", 180, ALERT, "seconds of silence after which a host counts as down and an alert is raised"
)
allow_public_user_templates = boolean(
    "allow.public.user.templates", True, ADVANCED, "whether users may make their templates public"
)
allow_subdomain_network_access = boolean(
    "allow.subdomain.network.access", True, ADVANCED, "whether subdomains may use the networks of their parents"
)
api_allowed_origins = text(
    "api.allowed.origins",
    "",
    ADVANCED,
    "origins besides our own from which a browser may use a login, separated by commas",
)
capacity_check_period = integer(
    "capacity.check.period", 300000, USAGE, "milliseconds between two checks of the cloud's capacity", least=1
)
check_pod_cidrs = boolean("check.pod.cidrs", True, ADVANCED, "whether the pods of a zone must lie in different subnets")
cloud_identifier = text("cloud.identifier", "", HIDDEN, "a name for this cloud, given when it is made")
cpu_capacity_threshold = number(
    "cpu.capacity.threshold", 0.85, USAGE, "share of claimed CPU above which an alert is raised", most=1.0
)
cpu_overprovisioning_factor = number(
    "cpu.overprovisioning.factor", 1.0, ADVANCED, "how many times the CPU of a host may be claimed", least=1.0
)
default_page_size = integer(
    "default.page.size",
    500,
    ADVANCED,
    "entries of a list page when none is asked for, and the most that may be",
    least=1,
)
direct_network_no_default_route = boolean(
    "direct.network.no.default.route", False, NETWORK, "whether routers of Direct networks tell guests no default route"
)
event_purge_delay = integer("event.purge.delay", 0, ADVANCED, "days after which events are forgotten, 0 for never")
expunge_delay = integer(
    "expunge.delay", 86400, ADVANCED, "seconds from the destruction of a machine until its disks are deleted"
)
expunge_interval = integer(
    "expunge.interval", 86400, ADVANCED, "seconds between two looks for machines to expunge", least=1
)
expunge_workers = integer("expunge.workers", 1, ADVANCED, "how many machines may be expunged at the same time", least=1)
guest_domain_suffix = text(
    "guest.domain.suffix",
    "cloud.internal",
    NETWORK,
    "DNS suffix of guest networks that name none",
    check=dns_domain,
)
host = text("host", "localhost", ADVANCED, "address at which agents and system VMs reach the management server")
host_allocators_order = text(
    "host.allocators.order",
    "ospreference,algorithm",
    ADVANCED,
    "which host is taken among those with room: allocators in their order, separated by commas, each decides among"
    " those that are equal to the ones before it; ospreference, algorithm (the one of vm.allocation.algorithm),"
    " firstfit, vertical, horizontal, random, userdispersing, and what else is installed",
)
incorrect_login_attempts_allowed = integer(
    "incorrect.login.attempts.allowed",
    5,
    ADVANCED,
    "failed logins before a user name or an address has to wait",
    least=1,
)
instance_name = text("instance.name", "VM", ADVANCED, "suffix of the instance names of guests")
integration_api_port = integer(
    "integration.api.port", 0, ADVANCED, "port of the API without authentication, 0 for none", most=65535
)
job_cancel_threshold_minutes = integer(
    "job.cancel.threshold.minutes", 60, ADVANCED, "minutes a job may take before it is reported"
)
job_expire_minutes = integer(
    "job.expire.minutes", 1440, ADVANCED, "minutes for which the result of an ended job is kept", least=1
)
ldap_dn = text("ldap.dn", "", ADVANCED, "name to search the LDAP directory as, empty for nobody in particular")
ldap_hostname = text("ldap.hostname", "", ADVANCED, "LDAP server that users may sign in by, empty for none")
ldap_passwd = text("ldap.passwd", "", ADVANCED, "password to search the LDAP directory with", secret=True)
ldap_port = integer("ldap.port", 389, ADVANCED, "port of the LDAP server", least=1, most=65535)
ldap_queryfilter = text(
    "ldap.queryfilter",
    "(uid=%u)",
    ADVANCED,
    "how a user is found in the LDAP directory: %u user name, %e e-mail address, %n first and last name",
)
ldap_search_subtree = boolean(
    "ldap.search.subtree", True, ADVANCED, "whether users are searched at any depth below the search base"
)
ldap_searchbase = text("ldap.searchbase", "", ADVANCED, "where the search in the LDAP directory begins")
ldap_starttls = boolean(
    "ldap.starttls", True, ADVANCED, "whether the LDAP connection changes to TLS before anything is said"
)
ldap_timeout = integer("ldap.timeout", 5, ADVANCED, "seconds the LDAP server may take to answer", least=1, most=60)
ldap_truststore = text(
    "ldap.truststore", "", ADVANCED, "PEM file of authorities the LDAP server is known by, empty for the system's own"
)
ldap_usessl = boolean("ldap.usessl", False, ADVANCED, "whether the LDAP connection begins with TLS (ldaps)")
login_block_seconds = integer(
    "login.block.seconds",
    300,
    ADVANCED,
    "seconds a user name or an address has to wait after too many failed logins",
    least=1,
)
max_account_public_ips = integer(
    "max.account.public.ips", 20, ACCOUNT_DEFAULTS, "public addresses an account may own, -1 for any number", least=-1
)
max_account_snapshots = integer(
    "max.account.snapshots", 20, ACCOUNT_DEFAULTS, "snapshots an account may own, -1 for any number", least=-1
)
max_account_templates = integer(
    "max.account.templates", 20, ACCOUNT_DEFAULTS, "templates an account may own, -1 for any number", least=-1
)
max_account_user_vms = integer(
    "max.account.user.vms", 20, ACCOUNT_DEFAULTS, "machines an account may own, -1 for any number", least=-1
)
max_account_volumes = integer(
    "max.account.volumes", 20, ACCOUNT_DEFAULTS, "volumes an account may own, -1 for any number", least=-1
)
max_template_iso_size = integer(
    "max.template.iso.size", 50, ADVANCED, "largest template or ISO that may be downloaded, in GB"
)
max_volume_size_gb = integer("max.volume.size.gb", 2000, STORAGE, "largest volume, in GB")
memory_capacity_threshold = number(
    "memory.capacity.threshold", 0.85, USAGE, "share of claimed memory above which an alert is raised", most=1.0
)
network_gc_interval = integer(
    "network.gc.interval", 600, ADVANCED, "seconds between two looks for networks that nobody uses", least=1
)
network_gc_wait = integer(
    "network.gc.wait", 600, ADVANCED, "seconds a network stays without running machines before it is shut down"
)
network_guest_cidr_limit = integer(
    "network.guest.cidr.limit", 22, NETWORK, "shortest prefix a guest network may have", least=1, most=32
)
network_throttling_rate = integer(
    "network.throttling.rate",
    200,
    NETWORK,
    "default rate of a machine's other NICs and of a router's public one, in Mb/s, 0 for any",
)
port = integer("port", 8250, ADVANCED, "port at which agents reach the management server", least=1, most=65535)
primary_storage_download_wait = integer(
    "primary.storage.download.wait", 10800, STORAGE, "seconds a template may take to reach primary storage"
)
private_ip_capacity_threshold = number(
    "private.ip.capacity.threshold",
    0.85,
    USAGE,
    "share of used private addresses above which an alert is raised",
    most=1.0,
)
proxy_cidr = text(
    "proxy.cidr", "", ADVANCED, "addresses of proxies whose X-Forwarded-For is believed, as CIDRs", check=cidrs
)
public_ip_capacity_threshold = number(
    "public.ip.capacity.threshold",
    0.85,
    USAGE,
    "share of used public addresses above which an alert is raised",
    most=1.0,
)
remote_access_vpn_client_iprange = text(
    "remote.access.vpn.client.iprange",
    "10.1.2.1-10.1.2.8",
    NETWORK,
    "first and last address of VPNs, where none are given: the router's own end, then those of clients",
    check=address_range,
)
remote_access_vpn_psk_length = integer(
    "remote.access.vpn.psk.length", 24, NETWORK, "characters of a VPN's pre-shared key", least=8, most=128
)
remote_access_vpn_user_limit = integer(
    "remote.access.vpn.user.limit", 8, NETWORK, "VPN users an account may have", most=1000
)
router_launcher = text(
    "router.launcher",
    "namespace",
    ADVANCED,
    "where virtual routers live unless their zone has a detail of this name: in a network namespace of a host, or in a"
    " vm booted from router.template.id; in force at a router's next start",
    choices=("namespace", "vm"),
)
router_template_id = text(
    "router.template.id", "", ADVANCED, "template of virtual routers that are a vm; it becomes a SYSTEM template"
)
secondary_storage_capacity_threshold = number(
    "secondary.storage.capacity.threshold",
    0.85,
    USAGE,
    "share of used secondary storage above which an alert is raised",
    most=1.0,
)
secstorage_allowed_internal_sites = text(
    "secstorage.allowed.internal.sites",
    "",
    ADVANCED,
    "networks of ours from which templates may be downloaded, as CIDRs",
    check=cidrs,
)
session_idle_timeout = integer(
    "session.idle.timeout", 1800, ADVANCED, "seconds after which an idle login ends", least=1
)
session_length = integer("session.length", 86400, ADVANCED, "seconds after which any login ends", least=1)
storage_allocators_order = text(
    "storage.allocators.order",
    "firstfit",
    STORAGE,
    "which storage pool of a host is taken among those with room: allocators in their order, separated by commas;"
    " firstfit, vertical, horizontal (the one with the most room), random, and what else is installed",
)
storage_allocated_capacity_threshold = number(
    "storage.allocated.capacity.threshold",
    0.85,
    USAGE,
    "share of claimed storage above which an alert is raised",
    most=1.0,
)
storage_capacity_threshold = number(
    "storage.capacity.threshold", 0.85, USAGE, "share of used storage above which an alert is raised", most=1.0
)
storage_cleanup_enabled = boolean(
    "storage.cleanup.enabled", True, ADVANCED, "whether what nobody needs any more on primary storage is deleted"
)
storage_cleanup_interval = integer(
    "storage.cleanup.interval", 86400, ADVANCED, "seconds between two looks for volumes to delete", least=1
)
storage_max_volume_size = integer("storage.max.volume.size", 2000, STORAGE, "largest volume, in GB")
storage_overprovisioning_factor = number(
    "storage.overprovisioning.factor",
    2.0,
    STORAGE,
    "how many times the space of a storage pool may be claimed",
    least=1.0,
)
storage_template_cleanup_enabled = boolean(
    "storage.template.cleanup.enabled", True, STORAGE, "whether templates that no volume uses leave primary storage"
)
user_authenticators_order = text(
    "user.authenticators.order",
    "local",
    ADVANCED,
    "who confirms passwords, in this order: local, ldap, md5 (clients of API 2.2 that send the MD5 of a password; it"
    " holds for passwords set while it is named here), and what else is installed",
)
vlan_capacity_threshold = number(
    "vlan.capacity.threshold", 0.85, USAGE, "share of used VLANs of a zone above which an alert is raised", most=1.0
)
vm_allocation_algorithm = text(
    "vm.allocation.algorithm",
    "random",
    ADVANCED,
    "which host is taken among those with room: random; firstfit or vertical, one host is filled before the next;"
    " horizontal, hosts take turns; userdispersing, hosts with the fewest guests of the account",
    choices=("random", "firstfit", "vertical", "horizontal", "userdispersing"),
)
vm_network_throttling_rate = integer(
    "vm.network.throttling.rate",
    200,
    NETWORK,
    "default rate of a machine's default NIC, in Mb/s, 0 for any",
)
wait = integer("wait", 1800, ADVANCED, "seconds a host may take to answer an operation")
workers = integer("workers", 5, ADVANCED, "worker threads of a management server", least=1)
