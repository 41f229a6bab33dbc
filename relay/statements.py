"""The SQL of the SQLite queue: schema, migrations, and every statement by name.

A lane is one destination at one rank (priority); its `next_due` is exactly the earliest next_attempt of its waiting
recipients, so who is due is found without looking at recipients. A claimed recipient keeps waiting with next_attempt
set to the end of its lease, so an expired lease needs no sweep; leases of an earlier run end when the file is opened.
Recipients of state WAITING alone are ever claimed.
"""

from __future__ import annotations

# States of a recipient.
WAITING, HELD, DELIVERED, RELAYED, FAILED, EXPIRED = range(6)

# Migrations: entry N brings a database of version N to N + 1. Never change one that was released; add another.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY,       -- order of arrival
        id TEXT NOT NULL UNIQUE,
        sender TEXT NOT NULL,
        arrived REAL NOT NULL,
        size INTEGER NOT NULL,
        deadline REAL NOT NULL,        -- DELIVERBY, infinity without
        open INTEGER NOT NULL,         -- recipients that are not final
        file INTEGER NOT NULL,         -- 1: the content is the file bodies/ID
        envelope BLOB NOT NULL,
        trace BLOB NOT NULL,
        content BLOB
    );
    CREATE INDEX messages_by_age ON messages (arrived, size);   -- totals need not read the messages
    CREATE INDEX messages_with_file ON messages (id) WHERE file = 1;
    CREATE TABLE recipients (
        message INTEGER NOT NULL,
        number INTEGER NOT NULL,
        address TEXT NOT NULL,
        dsn TEXT NOT NULL,             -- "": as in the envelope; else its own NOTIFY, a NUL, its own ORCPT
        lane INTEGER NOT NULL,
        state INTEGER NOT NULL,
        next_attempt REAL NOT NULL,
        attempts INTEGER NOT NULL,     -- settled
        claims INTEGER NOT NULL,
        lease INTEGER NOT NULL,        -- fencing token of the last claim, 0 after it was settled
        PRIMARY KEY (message, number)
    ) WITHOUT ROWID;
    CREATE INDEX recipients_by_lane ON recipients (lane, state, next_attempt);
    CREATE TABLE lanes (
        id INTEGER PRIMARY KEY,
        destination TEXT NOT NULL,
        rank INTEGER NOT NULL,
        next_due REAL,                 -- NULL: nothing waits
        UNIQUE (destination, rank)
    );
    CREATE INDEX lanes_by_due ON lanes (next_due) WHERE next_due IS NOT NULL;
    CREATE TABLE attempts (
        message INTEGER NOT NULL,
        number INTEGER NOT NULL,
        at REAL NOT NULL,
        result TEXT NOT NULL,
        code INTEGER NOT NULL,
        enhanced TEXT NOT NULL,
        text TEXT NOT NULL,
        remote TEXT NOT NULL,
        scope TEXT NOT NULL,
        next_attempt REAL NOT NULL
    );
    CREATE INDEX attempts_by_message ON attempts (message);
    CREATE TABLE sources (name TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE resends (key BLOB PRIMARY KEY, id TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
    CREATE INDEX resends_by_age ON resends (at);
    CREATE TABLE runs (number INTEGER NOT NULL);
    INSERT INTO runs VALUES (0);
    """,
)

VERSION = len(MIGRATIONS)

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -32768",
    # A checkpoint rewrites what the log holds; rarely is cheaper, since rows that come and go never reach the file.
    "PRAGMA wal_autocheckpoint = 8192",
    "PRAGMA journal_size_limit = 67108864",
)

NEW_RUN = "UPDATE runs SET number = number + 1 RETURNING number"
LAST_SEQ = "SELECT max(seq) FROM messages"

# Rows in one INSERT: one step of the database for many rows, instead of one for each. SQLite takes 32 766 values.
ROWS = 64

MESSAGE_COLUMNS = 11
RECIPIENT_COLUMNS = 10


def insert_messages(rows: int) -> str:
    return f"INSERT INTO messages VALUES {_rows(MESSAGE_COLUMNS, rows)}"


def insert_recipients(rows: int) -> str:
    return f"INSERT INTO recipients VALUES {_rows(RECIPIENT_COLUMNS, rows)}"


def _rows(columns: int, rows: int) -> str:
    one = f"({','.join('?' * columns)})"
    return ",".join([one] * rows)


KNOWN_IDS = "SELECT id FROM messages WHERE id IN (SELECT value FROM json_each(?))"
SET_SOURCE = "INSERT INTO sources VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET offset = excluded.offset"
SOURCE = "SELECT offset FROM sources WHERE name = ?"
FORGET_SOURCE = "DELETE FROM sources WHERE name = ?"
ADD_RESEND = "INSERT OR REPLACE INTO resends VALUES (?, ?, ?)"
PRUNE_RESENDS = "DELETE FROM resends WHERE at < ?"
RESEND = "SELECT id, at FROM resends WHERE key = ?"
RESENDS = "SELECT key, id, at FROM resends WHERE at >= ? ORDER BY at"

LANE = "SELECT id FROM lanes WHERE destination = ? AND rank = ?"
ADD_LANE = "INSERT INTO lanes (destination, rank) VALUES (?, ?) RETURNING id"
LANE_DUE_BY = "UPDATE lanes SET next_due = min(ifnull(next_due, 9e999), ?) WHERE id = ?"
LANE_DUE = """UPDATE lanes SET next_due =
    (SELECT min(next_attempt) FROM recipients WHERE lane = lanes.id AND state = 0) WHERE id = ?"""
LANES_OF = "SELECT id FROM lanes WHERE destination = ? AND next_due <= ? ORDER BY rank"
UNUSED_LANES = (
    "DELETE FROM lanes WHERE next_due IS NULL AND NOT EXISTS (SELECT 1 FROM recipients WHERE lane = lanes.id)"
)

DUE = """SELECT destination, min(next_due) AS since FROM lanes WHERE next_due <= ?
    GROUP BY destination ORDER BY since LIMIT ?"""
# Counting stops here: the dispatcher asks how much work there is, not how much there is in all.
COUNT_BOUND = 100
DUE_COUNT = f"""SELECT count(*) FROM (SELECT 1 FROM recipients
    WHERE lane IN (SELECT id FROM lanes WHERE destination = ?) AND state = 0 AND next_attempt <= ?
    LIMIT {COUNT_BOUND})"""
NEXT_DUE = "SELECT min(next_due) FROM lanes WHERE next_due IS NOT NULL"

PICK = """SELECT message FROM recipients WHERE lane = ? AND state = 0 AND next_attempt <= ?
    ORDER BY next_attempt LIMIT ?"""
# The plus signs keep SQLite from walking the lane's index, which may hold a million who are due.
CLAIM = """UPDATE recipients SET next_attempt = ?, lease = ?, claims = claims + 1
    WHERE message IN (SELECT value FROM json_each(?)) AND +lane = ? AND +state = 0 AND +next_attempt <= ?
    RETURNING message, number, address, dsn, attempts, claims"""
CLAIMED = "SELECT seq, id, size, envelope, trace FROM messages WHERE seq IN (SELECT value FROM json_each(?))"

LEASED = "SELECT number, lane, attempts FROM recipients WHERE message = ? AND lease = ?"
MESSAGE = "SELECT seq, open, file, deadline FROM messages WHERE id = ?"
SETTLE = """UPDATE recipients SET state = ?, next_attempt = ?, attempts = attempts + 1, lease = 0
    WHERE message = ? AND number = ?"""
DEFER = """UPDATE recipients SET next_attempt = ?, attempts = attempts + 1, lease = 0
    WHERE message = ? AND number = ?"""
UNTRIED = "UPDATE recipients SET next_attempt = ?, lease = 0 WHERE message = ? AND lease = ?"
EXTEND = "UPDATE recipients SET next_attempt = ? WHERE message = ? AND lease = ? RETURNING lane"
ADD_ATTEMPT = "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?)"
LAST_TRIED = "SELECT max(at) FROM attempts WHERE message = (SELECT seq FROM messages WHERE id = ?) AND number = ?"
FEWER_OPEN = "UPDATE messages SET open = open - ? WHERE seq = ?"
DROP = (
    "DELETE FROM attempts WHERE message = ?",
    "DELETE FROM recipients WHERE message = ?",
    "DELETE FROM messages WHERE seq = ?",
)
# Whoever holds the lock is alone: claims of an earlier run are nobody's, and due at once.
ABANDONED = "UPDATE recipients SET next_attempt = 0, lease = 0 WHERE lease != 0 RETURNING lane"
RAW = "SELECT seq, file, envelope, trace, content FROM messages WHERE id = ?"
BODY = "SELECT file, content FROM messages WHERE id = ?"
IDS_OF_FILES = "SELECT id FROM messages WHERE file = 1"

HOLD = "UPDATE recipients SET state = 1 WHERE message = ? AND state = 0 RETURNING lane"
# What a courier still has keeps its lease: let go at once it would be delivered twice.
LET_GO = """UPDATE recipients SET state = 0, next_attempt = iif(lease = 0, ?, next_attempt)
    WHERE message = ? AND state = 1 RETURNING lane"""
RETRY = """UPDATE recipients SET next_attempt = ? WHERE message = ? AND state = 0 AND next_attempt > ? AND lease = 0
    RETURNING lane"""
LANES_OF_MESSAGE = "SELECT DISTINCT lane FROM recipients WHERE message = ?"

# Looking. Lists go on behind the last number, so that a long one holds no snapshot open.
LANES_NAMED = "SELECT id FROM lanes WHERE destination = ? OR substr(destination, instr(destination, ':') + 1) = ?"
LIST_ALL = "SELECT seq FROM messages WHERE seq > ? AND arrived >= ? AND arrived <= ? ORDER BY seq LIMIT ?"
LIST_LANES = """SELECT DISTINCT message FROM recipients INDEXED BY recipients_by_lane
    WHERE lane IN (SELECT value FROM json_each(?)) ORDER BY message"""
LIST_MESSAGES = """SELECT seq, id, sender, arrived, size FROM messages
    WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq"""
LIST_RECIPIENTS = """SELECT r.message, r.number, r.address, l.destination, r.state, r.attempts, r.next_attempt, r.lease,
        a.code, ifnull(a.enhanced, ''), ifnull(a.text, ''), ifnull(a.remote, '')
    FROM recipients r JOIN lanes l ON l.id = r.lane LEFT JOIN attempts a ON a.rowid =
        (SELECT max(b.rowid) FROM attempts b WHERE b.message = r.message AND b.number = r.number)
    WHERE r.message IN (SELECT value FROM json_each(?)) ORDER BY r.message, r.number"""
SHOW = "SELECT seq, envelope, trace FROM messages WHERE id = ?"
SHOW_ATTEMPTS = """SELECT at, number, result, code, enhanced, text, remote, scope, next_attempt FROM attempts
    WHERE message = ? ORDER BY rowid"""
TOTALS = "SELECT count(*), sum(size), min(arrived) FROM messages"
TOTAL_RECIPIENTS = """SELECT state, attempts > 0, lease != 0 AND next_attempt > ?, count(*) FROM recipients
    GROUP BY 1, 2, 3"""
TOTAL_DESTINATIONS = """SELECT l.destination, count(*) AS many, min(r.next_attempt) FROM recipients r
    JOIN lanes l ON l.id = r.lane WHERE r.state = 0 GROUP BY l.destination ORDER BY many DESC LIMIT 20"""
# What is still to be delivered, for another queue.
COUNT = "SELECT count(*) FROM messages"
HAS = "SELECT 1 FROM messages WHERE id = ?"
NUMBERS = "SELECT seq FROM messages ORDER BY seq"
REMAINING = "SELECT id, size, file, envelope, trace, content FROM messages WHERE seq = ?"
REMAINING_RECIPIENTS = """SELECT r.number, r.address, r.dsn, r.state, r.claims FROM recipients r
    JOIN lanes l ON l.id = r.lane
    WHERE r.message = ? AND r.state IN (0, 1) AND l.destination NOT LIKE 'expand:%' ORDER BY r.number"""
REMAINING_RESENDS = "SELECT m.id, r.key FROM resends r JOIN messages m ON m.id = r.id"
CHECK_MESSAGES = "SELECT id, size, file, envelope, length(content) FROM messages"
CHECK_EMPTY = """SELECT id FROM messages m WHERE NOT EXISTS
    (SELECT 1 FROM recipients WHERE message = m.seq AND state IN (0, 1))"""
CHECK_LOST = """SELECT DISTINCT message FROM recipients r
    WHERE NOT EXISTS (SELECT 1 FROM messages WHERE seq = r.message)"""
