# Three PoPs. A fourth is a line in `pops`.

terraform {
  required_version = ">= 1.3"
  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.45"
    }
  }
}

variable "pops" {
  description = "The nodes: in which PoP each is, and where the provider has that."
  type        = map(object({ pop = string, location = string }))
  default = {
    fra-1 = { pop = "fra", location = "fsn1" }
    hel-1 = { pop = "hel", location = "hel1" }
    ash-1 = { pop = "ash", location = "ash" }
  }
}

variable "domain" {
  type    = string
  default = "cdn.example.net"
}

variable "package_url" {
  type = string
}

variable "package_sha256" {
  type = string
}

variable "hub" {
  type = list(string)
}

variable "operators" {
  description = "From where machines may be reached by ssh: networks, in CIDR."
  type        = list(string)
}

variable "ssh_keys" {
  type = list(string)
}

variable "hub_passwords" {
  description = "By node."
  type        = map(string)
  sensitive   = true
}

variable "shared_files" {
  description = "ca.pem, node.key, store.key and tickets.key, in base64: the same on all nodes."
  type        = map(string)
  sensitive   = true
}

variable "node_files" {
  description = "By node: node.pem and own.key, in base64."
  type        = map(map(string))
  sensitive   = true
}

module "user_data" {
  source   = "./user-data"
  for_each = var.pops

  node           = each.key
  pop            = each.value.pop
  domain         = var.domain
  package_url    = var.package_url
  package_sha256 = var.package_sha256
  hub            = var.hub
  hub_password   = var.hub_passwords[each.key]
  files          = merge(var.shared_files, var.node_files[each.key])
}

module "pop" {
  source   = "./pop"
  for_each = var.pops

  node      = each.key
  location  = each.value.location
  user_data = module.user_data[each.key].text
  operators = var.operators
  ssh_keys  = var.ssh_keys
}

# For DNS: the addresses of all nodes.
output "addresses" {
  value = { for node, pop in module.pop : node => pop.addresses }
}
