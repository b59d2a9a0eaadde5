import interrupted

interrupted.preload()
