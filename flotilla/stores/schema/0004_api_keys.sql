-- Keys of tenants. Of a secret only a digest is here, from which nobody gets back to it.
create table api_keys (
    id           text primary key collate "C",  -- sorts by time
    tenant       text not null collate "C",
    name         text not null,
    scopes       text[] not null,
    limits       jsonb not null,
    shown        text not null,
    digest       bytea not null check (octet_length(digest) = 32),
    created      timestamptz not null,
    created_by   text not null,
    expires      timestamptz,
    revoked      timestamptz,
    used         timestamptz,  -- to the minute
    former       bytea check (octet_length(former) = 32),
    former_until timestamptz
);
create index api_keys_of_tenant on api_keys (tenant, id desc);

alter table api_keys enable row level security;
-- Not forced: its owner, as whom find_api_key runs, sees all; the role of the fleet doesn't.
create policy tenant_only on api_keys
    using (tenant = any ((select string_to_array(nullif(current_setting('app.tenants', true), ''), ','))::text[]))
    with check (tenant = any ((select string_to_array(nullif(current_setting('app.tenants', true), ''), ','))::text[]));

-- The third look across tenants: whose key this is, by its id. It is asked before a tenant is known.
create function find_api_key(of_id text) returns setof api_keys
    language sql stable security definer set search_path = public, pg_temp as $$
    select * from api_keys where id = of_id
$$;
revoke execute on function find_api_key from public;

-- False if the tenant has as many live keys as it may have.
create function put_api_key(row_of jsonb, of_digest bytea, most bigint) returns boolean language plpgsql as $$
declare of_tenant text := row_of ->> 'tenant';
begin
    perform set_config('app.tenants', of_tenant, true);
    perform pg_advisory_xact_lock(5137206, hashtext(of_tenant));  -- two at once would both find room
    if (select count(*) from api_keys k where k.tenant = of_tenant and k.revoked is null
            and (k.expires is null or k.expires > (row_of ->> 'created')::timestamptz)) >= most then
        return false;
    end if;
    insert into api_keys (id, tenant, name, scopes, limits, shown, digest, created, created_by, expires)
        select r.id, r.tenant, r.name, r.scopes, r.limits, r.shown, of_digest, r.created, r.created_by, r.expires
        from jsonb_populate_record(null::api_keys, row_of) r;
    return true;
end $$;

create function read_api_key(of_tenant text, of_id text) returns setof api_keys language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query select * from api_keys k where k.tenant = of_tenant and k.id = of_id;
end $$;

create function list_api_keys(of_tenant text, before text, most bigint) returns setof api_keys
    language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query select * from api_keys k
        where k.tenant = of_tenant and (before is null or k.id < before) order by k.id desc limit most;
end $$;

-- No row for a key that is not live any more.
create function rotate_api_key(of_tenant text, of_id text, of_digest bytea, of_shown text, at timestamptz,
                               until timestamptz) returns setof api_keys language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query update api_keys k
        set former = k.digest, former_until = until, digest = of_digest, shown = of_shown
        where k.tenant = of_tenant and k.id = of_id and k.revoked is null
            and (k.expires is null or k.expires > at)
        returning k.*;
end $$;

-- Once is for ever: the first time stays.
create function revoke_api_key(of_tenant text, of_id text, at timestamptz) returns setof api_keys
    language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query update api_keys k set revoked = coalesce(k.revoked, at), former = null, former_until = null
        where k.tenant = of_tenant and k.id = of_id returning k.*;
end $$;

-- Of many tenants at once. Gateways do it at the same time: what is locked is passed over until the next time.
create function touch_api_keys(of_tenants text[], ids text[], at timestamptz) returns void language plpgsql as $$
begin
    perform set_config('app.tenants', array_to_string(of_tenants, ','), true);
    update api_keys k set used = at where k.id in (
        select o.id from api_keys o where o.id = any (ids) and (o.used is null or o.used < at)
        for update skip locked);
end $$;
