-- What replies have cost. An entry is written once; the sums of its day are changed with it, in one
-- transaction, so that a month of a busy tenant is read from a few rows and not from a million.
create table charges (
    tenant            text not null collate "C",
    key               text not null collate "C",
    at                timestamptz not null,
    source            text not null,
    model             text not null,
    prompt_tokens     bigint not null check (prompt_tokens >= 0),
    cached_tokens     bigint not null check (cached_tokens >= 0),
    completion_tokens bigint not null check (completion_tokens >= 0),
    cost              bigint not null check (cost >= 0),  -- micro-units
    first_token_ms    double precision not null,
    outcome           text not null,
    primary key (tenant, key)
);
create index charges_by_time on charges (tenant, at);

create table charges_by_day (
    tenant            text not null collate "C",
    day               date not null,  -- in UTC
    model             text not null collate "C",
    source            text not null collate "C",
    replies           bigint not null,
    prompt_tokens     bigint not null,
    cached_tokens     bigint not null,
    completion_tokens bigint not null,
    cost              bigint not null,
    primary key (tenant, day, model, source)
);

do $$
declare t text;
begin
    foreach t in array array['charges', 'charges_by_day'] loop
        execute format('alter table %I enable row level security', t);
        execute format('alter table %I force row level security', t);
        execute format($policy$create policy tenant_only on %I
            using (tenant = any ((select string_to_array(nullif(current_setting('app.tenants', true), ''), ','))::text[]))
            with check (tenant = any ((select string_to_array(nullif(current_setting('app.tenants', true), ''), ','))::text[]))
        $policy$, t);
    end loop;
end $$;

-- One round trip, many tenants. What is there already is left as it is, and counts no second time. The rows
-- are locked in one order everywhere: two writers would deadlock otherwise.
create function add_charges(of_tenants text[], rows jsonb) returns void language plpgsql as $$
begin
    perform set_config('app.tenants', array_to_string(of_tenants, ','), true);
    with new as (
        insert into charges as c
            select r.* from jsonb_populate_recordset(null::charges, rows) r order by r.tenant, r.key
            on conflict do nothing
            returning c.*)
    insert into charges_by_day as d
            (tenant, day, model, source, replies, prompt_tokens, cached_tokens, completion_tokens, cost)
        select n.tenant, (n.at at time zone 'UTC')::date, n.model, n.source, count(*), sum(n.prompt_tokens),
               sum(n.cached_tokens), sum(n.completion_tokens), sum(n.cost)
        from new n group by 1, 2, 3, 4 order by 1, 2, 3, 4
        on conflict (tenant, day, model, source) do update set
            replies = d.replies + excluded.replies,
            prompt_tokens = d.prompt_tokens + excluded.prompt_tokens,
            cached_tokens = d.cached_tokens + excluded.cached_tokens,
            completion_tokens = d.completion_tokens + excluded.completion_tokens,
            cost = d.cost + excluded.cost;
end $$;

create function read_usage(of_tenant text, since date, until date, by text, most bigint)
    returns table (name text, replies bigint, prompt_tokens bigint, cached_tokens bigint,
                   completion_tokens bigint, cost bigint) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query
        select case by when 'day' then to_char(d.day, 'YYYY-MM-DD') when 'model' then d.model else d.source end collate "C" as name,
               sum(d.replies)::bigint, sum(d.prompt_tokens)::bigint, sum(d.cached_tokens)::bigint,
               sum(d.completion_tokens)::bigint, sum(d.cost)::bigint
        from charges_by_day d where d.tenant = of_tenant and d.day >= since and d.day < until
        group by 1 order by 1 limit most;
end $$;
