-- Queues and their settings.

-- name: by_name
SELECT queue_id, tenant, name, paused, retry, dispatch_deadline_ms, version
  FROM queues WHERE tenant = $1 AND name = $2;

-- name: all
SELECT queue_id, tenant, name, paused, retry, dispatch_deadline_ms, version
  FROM queues;

-- name: insert
-- $1 tenant, $2 name, $3 limit. No row: the number or the name was taken meanwhile (look again), or the limit is hit.
INSERT INTO queues (queue_id, tenant, name)
SELECT (SELECT coalesce(max(queue_id), 0) + 1 FROM queues), $1, $2
 WHERE (SELECT count(*) FROM queues WHERE tenant = $1) < $3
ON CONFLICT DO NOTHING
RETURNING queue_id, tenant, name, paused, retry, dispatch_deadline_ms, version;

-- name: count
SELECT count(*) FROM queues WHERE tenant = $1;
