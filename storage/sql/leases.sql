-- Membership and ownership. docs/ownership.md is the protocol.

-- name: join
-- $1 boot, $2 name, $3 address. A boot that is there stays as it is: a dead one stays dead.
WITH made AS (
    INSERT INTO nodes (boot, name, address, state, joined_ms)
    VALUES ($1, $2, $3, 'up', extract(epoch FROM clock_timestamp()) * 1000)
    ON CONFLICT DO NOTHING
)
SELECT shards, secret FROM cluster;

-- name: beat
-- $1 boot. The heartbeat and the whole world in one round trip. `me` changes the row; the other parts read the snapshot
-- from before it, so my own counter is shown one higher. Nothing of it is used when `me` has no row.
WITH me AS (
    UPDATE nodes SET hb_seq = hb_seq + 1 WHERE boot = $1 AND state <> 'dead' RETURNING boot
), world AS MATERIALIZED (
    SELECT s.shard, s.epoch, s.owner_boot = $1 AS mine FROM shards s
     WHERE s.owner_boot = $1
        OR s.owner_boot IS NULL
        OR s.owner_boot NOT IN (SELECT n.boot FROM nodes n WHERE n.state <> 'dead')
), theirs AS MATERIALIZED (
    SELECT s.shard, s.epoch, s.owner_boot FROM shards s JOIN nodes n ON n.boot = s.owner_boot
     WHERE n.state <> 'dead' AND s.owner_boot <> $1
), peer AS MATERIALIZED (
    SELECT n.boot, n.name, n.address, n.state, n.hb_seq + (n.boot = $1)::int4 AS beats
      FROM nodes n WHERE n.state <> 'dead'
)
SELECT EXISTS (SELECT FROM me) AS alive,
       ARRAY(SELECT shard FROM world WHERE mine ORDER BY shard) AS owned,
       ARRAY(SELECT epoch FROM world WHERE mine ORDER BY shard) AS owned_epochs,
       ARRAY(SELECT shard FROM world WHERE mine IS NOT TRUE ORDER BY shard) AS orphans,
       ARRAY(SELECT epoch FROM world WHERE mine IS NOT TRUE ORDER BY shard) AS orphan_epochs,
       ARRAY(SELECT shard FROM theirs ORDER BY shard) AS held,
       ARRAY(SELECT owner_boot FROM theirs ORDER BY shard) AS holders,
       ARRAY(SELECT epoch FROM theirs ORDER BY shard) AS held_epochs,
       ARRAY(SELECT boot FROM peer ORDER BY boot) AS boots,
       ARRAY(SELECT name FROM peer ORDER BY boot) AS names,
       ARRAY(SELECT address FROM peer ORDER BY boot) AS addresses,
       ARRAY(SELECT state FROM peer ORDER BY boot) AS states,
       ARRAY(SELECT beats FROM peer ORDER BY boot) AS beats,
       (SELECT settings_version FROM cluster) AS settings_version,
       substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline;

-- name: clock
-- Apart from the beat, whose answer waits for its commit: the estimate errs by as much as an answer takes.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8;

-- name: condemn
-- $1 boot, $2 its counter as seen, $3 whether it must have no session left, $4 the name of its sessions. No row: it
-- moved, it has sessions, or the boot is dead already.
UPDATE nodes SET state = 'dead'
 WHERE boot = $1 AND hb_seq = $2 AND state <> 'dead'
   AND NOT ($3 AND EXISTS (SELECT FROM pg_stat_activity
                            WHERE datname = current_database() AND application_name = $4::text))
RETURNING boot;

-- name: is_alive
SELECT EXISTS (SELECT FROM nodes WHERE boot = $1 AND state <> 'dead');

-- name: sweep
-- $1 boot, $2 and $3 shards and epochs as seen. `free` waits for open fenced writes (they hold FOR SHARE) and looks
-- again at what it waited for: a row whose epoch moved is out. Locks in order: two sweeps never wait in a ring. Death is
-- final, so a dead owner in this statement's snapshot is dead for good.
WITH free AS MATERIALIZED (
    SELECT s.shard
      FROM unnest($2::int2[], $3::int8[]) AS h (shard, epoch)
      JOIN shards s ON s.shard = h.shard AND s.epoch = h.epoch
     WHERE NOT EXISTS (SELECT FROM nodes n WHERE n.boot = s.owner_boot AND n.state <> 'dead')
       AND EXISTS (SELECT FROM nodes n WHERE n.boot = $1 AND n.state <> 'dead')
     ORDER BY s.shard
       FOR NO KEY UPDATE OF s
)
UPDATE shards s SET owner_boot = $1, epoch = s.epoch + 1
  FROM free f WHERE s.shard = f.shard
RETURNING s.shard, s.epoch;

-- name: end_sessions
-- $1 names of sessions.
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = ANY ($1::text[]) AND pid <> pg_backend_pid();

-- name: end_sessions_of_owners
-- $1 shards, $2 what names of sessions begin with: those of owners that are not alive.
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
   AND application_name IN (
       SELECT $2::text || s.owner_boot FROM shards s
        WHERE s.shard = ANY ($1::int2[])
          AND NOT EXISTS (SELECT FROM nodes n WHERE n.boot = s.owner_boot AND n.state <> 'dead'));

-- name: has_sessions
-- $1 as above. A session is not seen any more once its transaction is rolled back and its locks are free.
SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = ANY ($1::text[]) AND pid <> pg_backend_pid());

-- name: depart
-- $1 boot.
UPDATE nodes SET state = 'leaving' WHERE boot = $1 AND state = 'up';

-- name: give
-- $1 boot, $2 shards, $3 their epochs, $4 boots that are to own them. Waits for open fenced writes, as a sweep does; the
-- condition on the owner is looked at again behind that wait. One that leaves may keep a shard, under another epoch.
WITH given AS MATERIALIZED (
    SELECT s.shard, h.heir
      FROM unnest($2::int2[], $3::int8[], $4::text[]) AS h (shard, epoch, heir)
      JOIN shards s ON s.shard = h.shard AND s.epoch = h.epoch
     WHERE s.owner_boot = $1
       AND EXISTS (SELECT FROM nodes n WHERE n.boot = h.heir AND (n.state = 'up' OR (n.state = 'leaving' AND n.boot = $1)))
     ORDER BY s.shard
       FOR NO KEY UPDATE OF s
)
UPDATE shards s SET owner_boot = g.heir, epoch = s.epoch + 1
  FROM given g WHERE s.shard = g.shard
RETURNING s.shard;

-- name: release
-- $1 boot. Waits for open fenced writes.
WITH held AS MATERIALIZED (
    SELECT shard FROM shards WHERE owner_boot = $1 ORDER BY shard FOR NO KEY UPDATE
)
UPDATE shards s SET owner_boot = NULL, epoch = s.epoch + 1
  FROM held h WHERE s.shard = h.shard;

-- name: bury
UPDATE nodes SET state = 'dead' WHERE boot = $1 AND state <> 'dead';
