-- The plugin development kit's functions that the tests use, made of the ngx API. Each takes the
-- event's context first: {shared, plugin, saved}; `saved` exists in the log phase only, which runs
-- in a timer, where the request is gone.

local cjson = require "cjson.safe"
local wire = require "wire"

local functions = {}

local MULTIMAPS = {
  ["kong.request.get_headers"] = true,
  ["kong.request.get_query"] = true,
  ["kong.response.get_headers"] = true,
}

-- Every value becomes a list; `true` (a query argument without a value) becomes an empty one.
local function lists(fields)
  local out = {}
  for name, value in pairs(fields) do
    local list = {}
    for _, item in ipairs(type(value) == "table" and value or { value }) do
      if item ~= true then
        list[#list + 1] = item
      end
    end
    out[name] = list
  end
  return wire.map(out)
end

local function first(value)
  if type(value) == "table" then
    return value[1]
  end
  return value
end

-- Logging ---------------------------------------------------------------------------------------

local LEVELS = {
  debug = ngx.DEBUG, info = ngx.INFO, notice = ngx.NOTICE, warn = ngx.WARN,
  err = ngx.ERR, crit = ngx.CRIT, alert = ngx.ALERT, emerg = ngx.EMERG,
}

local function log_at(level)
  return function(event, ...)
    local parts = {}
    for i = 1, select("#", ...) do
      parts[i] = tostring((select(i, ...)))
    end
    ngx.log(level, "[", event.plugin, "] ", table.concat(parts))
  end
end

functions["kong.log"] = log_at(ngx.NOTICE)
for name, level in pairs(LEVELS) do
  functions["kong.log." .. name] = log_at(level)
end

functions["kong.log.serialize"] = function(event)
  return event.saved.serialized
end

-- Contexts and node -----------------------------------------------------------------------------

functions["kong.ctx.shared.get"] = function(event, key)
  return event.shared[key]
end

functions["kong.ctx.shared.set"] = function(event, key, value)
  event.shared[key] = value
end

functions["kong.client.get_ip"] = function()
  return ngx.var.remote_addr
end

functions["kong.nginx.get_subsystem"] = function()
  return "http"
end

-- Request ---------------------------------------------------------------------------------------

local function request_headers(event, max)
  return event.saved and event.saved.request_headers or ngx.req.get_headers(max)
end

local function spooled(path, allowed)
  if not allowed or allowed < 0 then
    -- A real gateway aborts the event here: the client gets a 500 and no step follows.
    error("the request body does not fit into client_body_buffer_size")
  end
  local file = assert(io.open(path, "rb"))
  local body = file:read("*a")
  file:close()
  return body
end

local function body_text(allowed)
  ngx.req.read_body()
  local path = ngx.req.get_body_file()
  return path and spooled(path, allowed) or ngx.req.get_body_data() or ""
end

functions["kong.request.get_method"] = function() return ngx.req.get_method() end
functions["kong.request.get_scheme"] = function() return ngx.var.scheme end
functions["kong.request.get_host"] = function() return ngx.var.host end
functions["kong.request.get_http_version"] = function() return ngx.req.http_version() end

functions["kong.request.get_path"] = function()
  return (ngx.var.request_uri:gsub("%?.*", ""))
end

functions["kong.request.get_header"] = function(event, name)
  return first(request_headers(event)[name])
end

functions["kong.request.get_headers"] = function(event, max)
  return request_headers(event, max)
end

functions["kong.request.get_query"] = function(_, max)
  return ngx.req.get_uri_args(max)
end

functions["kong.request.get_query_arg"] = function(_, name)
  return first(ngx.req.get_uri_args()[name])
end

functions["kong.request.get_raw_body"] = function(_, allowed)
  return wire.binary(body_text(allowed))
end

functions["kong.request.get_body"] = function()
  return cjson.decode(body_text())
end

-- Response --------------------------------------------------------------------------------------

functions["kong.response.get_status"] = function(event)
  return event.saved and event.saved.status or ngx.status
end

functions["kong.response.get_headers"] = function(event, max)
  return event.saved and event.saved.response_headers or ngx.resp.get_headers(max)
end

functions["kong.response.get_header"] = function(event, name)
  return first(functions["kong.response.get_headers"](event)[name])
end

functions["kong.response.set_status"] = function(_, status)
  ngx.status = status
end

functions["kong.response.set_header"] = function(_, name, value)
  ngx.header[name] = value
end

functions["kong.response.set_headers"] = function(_, headers)
  for name, value in pairs(headers) do
    ngx.header[name] = value
  end
end

functions["kong.response.add_header"] = function(_, name, value)
  local values = ngx.header[name]
  values = type(values) == "table" and values or { values }
  values[#values + 1] = value
  ngx.header[name] = values
end

functions["kong.response.clear_header"] = function(_, name)
  ngx.header[name] = nil
end

-- ngx.exit never returns here, so no step follows an exit.
functions["kong.response.exit"] = function(_, status, body, headers)
  ngx.status = status
  if type(body) == "table" then
    body = cjson.encode(body)
    ngx.header["Content-Type"] = "application/json; charset=utf-8"
  end
  ngx.header["Content-Length"] = body and #body or 0
  for name, value in pairs(headers or {}) do
    ngx.header[name] = value
  end
  ngx.send_headers()
  if body then
    ngx.print(body)
  end
  return ngx.exit(status)
end

functions["kong.response.error"] = function(event, status, message, headers)
  local body = { message = message or "default message" }
  return functions["kong.response.exit"](event, status, body, headers)
end

-- Upstream request ------------------------------------------------------------------------------

functions["kong.service.request.set_header"] = function(_, name, value)
  ngx.req.set_header(name, value)
end

functions["kong.service.request.clear_header"] = function(_, name)
  ngx.req.clear_header(name)
end

functions["kong.service.request.set_raw_body"] = function(_, body)
  ngx.req.read_body()
  ngx.req.set_body_data(body)
end

-- -----------------------------------------------------------------------------------------------

local _M = {}

-- Runs one function. Returns its first value only, and the method that the step travels under.
function _M.run(event, name, args)
  local run = functions[name]
  if not run then
    error("the plugin called " .. tostring(name) .. ", which this client does not have")
  end
  -- unpack(args) on purpose, without the count: this is where LuaJIT loses what follows a nil.
  local value = run(event, unpack(args or {}))
  if MULTIMAPS[name] then
    value = lists(value)
  end
  -- A result with a _method key gives the call its name: whoever sends ?_method=x chooses it.
  local hijack = type(value) == "table" and value._method
  if hijack then
    return value, hijack
  end
  return value, MULTIMAPS[name] and "plugin.StepMultiMap" or "plugin.Step"
end

return _M
