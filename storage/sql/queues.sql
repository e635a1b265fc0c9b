-- Queues and their settings. What changes settings raises cluster.settings_version in the same statement.

-- name: by_name
SELECT queue_id, tenant, name, paused, retry, dispatch_deadline_ms, retention, version, deleted, unknown
  FROM queues WHERE tenant = $1 AND name = $2 AND NOT deleted;

-- name: all
SELECT queue_id, tenant, name, paused, retry, dispatch_deadline_ms, retention, version, deleted, unknown
  FROM queues;

-- name: by_numbers
SELECT queue_id, tenant, name, paused, retry, dispatch_deadline_ms, retention, version, deleted, unknown
  FROM queues WHERE queue_id = ANY($1::int[]);

-- name: page
-- $1 tenant, $2 name to start after, $3 limit.
SELECT queue_id, tenant, name, paused, retry, dispatch_deadline_ms, retention, version, deleted, unknown
  FROM queues
 WHERE tenant = $1 AND name > $2 COLLATE "C" AND NOT deleted
 ORDER BY name COLLATE "C"
 LIMIT $3;

-- name: revive
-- $1 tenant, $2 name. No row: it was not deleted.
WITH revived AS (
    UPDATE queues SET deleted = false, version = version + 1
     WHERE tenant = $1 AND name = $2 AND deleted
    RETURNING queue_id, tenant, name, paused, retry, dispatch_deadline_ms, retention, version, deleted, unknown
), told AS (
    UPDATE cluster SET settings_version = settings_version + 1 WHERE EXISTS (SELECT FROM revived)
)
SELECT * FROM revived;

-- name: insert
-- $1 tenant, $2 name, $3 limit. No row: the number or the name was taken meanwhile (look again), or the limit is hit.
INSERT INTO queues (queue_id, tenant, name)
SELECT (SELECT coalesce(max(queue_id), 0) + 1 FROM queues), $1, $2
 WHERE (SELECT count(*) FROM queues WHERE tenant = $1) < $3
ON CONFLICT DO NOTHING
RETURNING queue_id, tenant, name, paused, retry, dispatch_deadline_ms, retention, version, deleted, unknown;

-- name: count
SELECT count(*) FROM queues WHERE tenant = $1;

-- name: change
-- $1 queue, $2 its version, $3 paused, $4 retry, $5 dispatch_deadline_ms, $6 retention, $7 unknown.
-- No row: it has another version.
WITH changed AS (
    UPDATE queues
       SET paused = $3, retry = $4, dispatch_deadline_ms = $5, retention = $6, unknown = $7,
           version = version + 1
     WHERE queue_id = $1 AND version = $2 AND NOT deleted
    RETURNING queue_id, tenant, name, paused, retry, dispatch_deadline_ms, retention, version, deleted, unknown
), told AS (
    UPDATE cluster SET settings_version = settings_version + 1 WHERE EXISTS (SELECT FROM changed)
)
SELECT * FROM changed;

-- name: delete
-- $1 queue. No row: it has live tasks. One look into the index of live tasks for each shard.
WITH gone AS (
    UPDATE queues
       SET paused = false, retry = NULL, dispatch_deadline_ms = 30000, retention = NULL, unknown = 'retry',
           deleted = true, version = version + 1
     WHERE queue_id = $1
       AND NOT EXISTS (SELECT FROM shards s
                        CROSS JOIN LATERAL (SELECT FROM tasks t WHERE t.shard = s.shard AND t.queue_id = $1 LIMIT 1) x)
    RETURNING queue_id, tenant, name, paused, retry, dispatch_deadline_ms, retention, version, deleted, unknown
), told AS (
    UPDATE cluster SET settings_version = settings_version + 1 WHERE EXISTS (SELECT FROM gone)
)
SELECT * FROM gone;
