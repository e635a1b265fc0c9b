-- What shows all tenants, or acts on nodes, has scopes of its own, `metrics` and `operate`; until now `admin` opened it.
-- Who operates the service, and made a key without naming a tenant, keeps what that key opened. A key of any other
-- tenant does not.

WITH kept AS (
    UPDATE api_keys
    SET scopes = ARRAY(SELECT DISTINCT unnest(scopes || ARRAY['metrics', 'operate']) ORDER BY 1)
    WHERE tenant = 'default' AND 'admin' = ANY (scopes)
    RETURNING prefix
)
UPDATE cluster SET keys_version = keys_version + 1 WHERE EXISTS (SELECT FROM kept);
